"""What made a picture, written into it and read back; and making it again."""
