"""What the tests share: engines under test, clients to drive them, images to run, and looks from outside."""
