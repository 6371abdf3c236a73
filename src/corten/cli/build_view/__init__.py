"""How `corten build` shows a build while it goes on: trace.py knows what has been said, plain.py and live.py how it looks, view.py which of them is used."""
