"""What runs between two queues: steps over whole columns, without state between batches."""
