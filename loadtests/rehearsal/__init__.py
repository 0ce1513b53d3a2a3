"""An incident, rehearsed: a wrong feature load goes live, is rolled back, replayed, compared, published."""
