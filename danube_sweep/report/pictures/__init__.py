"""The pictures of a report, inline SVG: axes draws what they share; colours and lines are named in static/page.css."""
