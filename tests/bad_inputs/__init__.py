"""Bad inputs, a table a kind: by name how a desk is damaged and which verb is called, and a piece of the line that a
person is told."""
