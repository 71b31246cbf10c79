"""Kubernetes: the Job of a planned experiment."""
