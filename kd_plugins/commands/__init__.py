"""The sub-commands of `basicsr`, a file each: arguments in, one call out."""
