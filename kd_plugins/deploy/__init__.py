"""From a checkpoint to a device: restoring images of any kind and size, exported forms, how long they take."""
