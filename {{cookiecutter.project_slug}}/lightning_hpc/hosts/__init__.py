"""From a laptop to a login node: sending the project, running its commands there, fetching results."""
