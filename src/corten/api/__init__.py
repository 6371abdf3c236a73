"""The HTTP contract: routes, handlers, streams, the small client, and the composition root."""
