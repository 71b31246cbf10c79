"""What each run keeps so that it can be reproduced: what it was made with, and fingerprints of its weights and data."""
