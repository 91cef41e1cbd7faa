"""From the bytes of a web page to the fields of its preview; asks nobody, waits for nothing."""
