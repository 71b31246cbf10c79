"""The arrays of an experiment: the calls of sbatch, in waves where a queue is limited, and back into the queue."""
