"""How redundant is a network? Model -> maps or filters -> figures of speech and of ink; nothing is swapped here."""
