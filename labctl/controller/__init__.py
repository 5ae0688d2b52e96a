"""Acts: observes, plans, executes, records. The only room that reads the clock."""
