"""Reading and running a `.tflite` file."""
