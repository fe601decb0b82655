-- AlterTable
ALTER TABLE "servers" ADD COLUMN     "plan_waits" JSONB;
