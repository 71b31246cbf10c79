"""A PyTorch Lightning research project: edit model.py, networks.py and data.py; the folders are the machine room."""
