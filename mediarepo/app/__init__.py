"""The parts are joined here, once, by hand."""
