"""The laboratory's text: an invented world of which everything is known, told in two languages."""
