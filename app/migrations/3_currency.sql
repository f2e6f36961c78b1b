-- Up Migration
SET LOCAL lock_timeout = '5s';
-- With a default: versions that do not know the column go on inserting.
ALTER TABLE orders ADD COLUMN currency char(3) NOT NULL DEFAULT 'EUR';

-- Down Migration
SET LOCAL lock_timeout = '5s';
ALTER TABLE orders DROP COLUMN currency;
