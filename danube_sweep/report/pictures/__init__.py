"""The pictures of a report, inline SVG: frame draws what they share; colours and lines are named in static/page.css."""
