"""What is put into guests: the boot script and the health agent."""
