"""The pictures of a report, inline SVG: axes draws shared parts; colours and lines are in static/page.css."""
