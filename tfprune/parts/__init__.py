"""What can be pruned as one: kernels, channels, structures, gammas, branches."""
