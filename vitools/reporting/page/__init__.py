"""One offline HTML page: its parts, each a piece of data or of HTML, and the template that holds them."""
