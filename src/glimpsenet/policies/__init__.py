"""Where to look next: the policies, and what they are built from."""
