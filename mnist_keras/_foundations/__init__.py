"""What all wings stand on: seeds, hashing, files, backends, statistics, pictures, registration."""
