"""What is known about clusters, and whether they can serve what a job asks for."""
