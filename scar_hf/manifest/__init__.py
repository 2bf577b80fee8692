"""What stands next to an output: where its rows come from, how they were chosen, and how to do it again."""
