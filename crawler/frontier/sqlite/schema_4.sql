-- Version 4: what was never written goes. Templates are counted in memory (engine/traps.py); the store has those in
-- quarantine.
DROP TABLE template;
