"""How models are trained side by side: one model in memory, many in processes, and what is seen meanwhile."""
