UPDATE "servers" SET "addresses" = ARRAY[]::text[] WHERE "addresses" IS NULL;

-- AlterTable
ALTER TABLE "servers" ALTER COLUMN "addresses" SET DEFAULT ARRAY[]::TEXT[];
ALTER TABLE "servers" ALTER COLUMN "addresses" SET NOT NULL;
