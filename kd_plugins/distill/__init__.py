"""One command from a teacher to a student on a device: an option file, a training, exports, a page."""
