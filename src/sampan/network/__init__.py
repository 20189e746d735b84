"""Networks, addresses, and the files that name them."""
