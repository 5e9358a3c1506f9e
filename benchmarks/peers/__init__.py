"""The same job on what others offer: each peer as its users would write it, one file each."""
