"""The parts of the page, top to bottom: answer, ranking with its opened rows, pictures, compared."""
