"""From files and a command line to settings that are known to be right. arguments.py and parser.py import torch."""
