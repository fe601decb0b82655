-- Every command that names a server looks it up by this, among everybody's for staff: server_live_name begins with the
-- customer. An expression index, which Prisma's differ does not touch.
CREATE INDEX "server_live_by_name" ON "servers" (lower("name")) WHERE "deleted_at" IS NULL;
