"""What every room uses: checks of arguments, files, tables."""
