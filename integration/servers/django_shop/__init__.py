"""The project of examples/django as a server that is asked by many: its answers say which process gave them."""
