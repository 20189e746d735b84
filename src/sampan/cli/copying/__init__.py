"""What `sampan cp` is made of: the rules of its paths, archives from and to local files, its progress."""
