"""HTTP to engine calls and back."""
