"""What weights take when they are coded, and a smaller container for `.tflite` files."""
