"""Where else a posterior has mass: what no draw of a fit has seen."""
