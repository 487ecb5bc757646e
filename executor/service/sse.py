"""Server-sent events (WHATWG HTML, section 9.2): one encoder and one incremental decoder."""
