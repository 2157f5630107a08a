"""Files of others: one reader per format of logs and demonstrations."""
