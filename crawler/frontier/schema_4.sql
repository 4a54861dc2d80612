-- Version 4: what was never written goes. Templates are counted in memory (engine/pages/traps.py); the store has those in
-- quarantine.
DROP TABLE template;
