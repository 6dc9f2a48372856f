"""How things look in a notebook: text and tables as HTML (``markup``), figures as pictures (``picture``)."""
