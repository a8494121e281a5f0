// SPDX-License-Identifier: GPL-2.0
/*
 * I2C adapters joined to one bus, in software. A message that one of them sends as
 * master reaches the slave that is registered at its address on another one. It is
 * for tests of what has two ends, such as MCTP over I2C.
 *
 * Writes alone: that is all MCTP does. Nobody at an address is -ENXIO.
 */
#include <linux/i2c.h>
#include <linux/init.h>
#include <linux/list.h>
#include <linux/mutex.h>

#define ADAPTERS 2

struct listener {
	struct list_head list;
	struct i2c_client *client;
};

static LIST_HEAD(listeners);
static DEFINE_MUTEX(bus_lock); /* the wire: one master at a time, and the listeners */

static struct i2c_adapter adapters[ADAPTERS];

static struct i2c_client *client_at(struct i2c_adapter *master, u16 addr)
{
	struct listener *l;

	list_for_each_entry(l, &listeners, list)
		if (l->client->adapter != master && l->client->addr == addr)
			return l->client;
	return NULL;
}

static int joined_write(struct i2c_client *slave, struct i2c_msg *msg)
{
	u8 value = 0;
	int i, ret;

	ret = i2c_slave_event(slave, I2C_SLAVE_WRITE_REQUESTED, &value);
	for (i = 0; !ret && i < msg->len; i++) {
		value = msg->buf[i];
		ret = i2c_slave_event(slave, I2C_SLAVE_WRITE_RECEIVED, &value);
	}
	i2c_slave_event(slave, I2C_SLAVE_STOP, &value);
	return ret ? -EIO : 0;
}

static int joined_xfer(struct i2c_adapter *adap, struct i2c_msg *msgs, int num)
{
	int i, ret = 0;

	mutex_lock(&bus_lock);
	for (i = 0; !ret && i < num; i++) {
		struct i2c_client *slave = client_at(adap, msgs[i].addr);

		if (msgs[i].flags & I2C_M_RD)
			ret = -EOPNOTSUPP;
		else if (!slave)
			ret = -ENXIO;
		else
			ret = joined_write(slave, &msgs[i]);
	}
	mutex_unlock(&bus_lock);
	return ret ? ret : num;
}

static int joined_reg(struct i2c_client *client)
{
	struct listener *l;
	int ret = -EBUSY;

	mutex_lock(&bus_lock);
	list_for_each_entry(l, &listeners, list)
		if (l->client->adapter == client->adapter && l->client->addr == client->addr)
			goto out;
	ret = -ENOMEM;
	l = kzalloc(sizeof(*l), GFP_KERNEL);
	if (!l)
		goto out;
	l->client = client;
	list_add_tail(&l->list, &listeners);
	ret = 0;
out:
	mutex_unlock(&bus_lock);
	return ret;
}

static int joined_unreg(struct i2c_client *client)
{
	struct listener *l, *next;

	mutex_lock(&bus_lock);
	list_for_each_entry_safe(l, next, &listeners, list)
		if (l->client == client) {
			list_del(&l->list);
			kfree(l);
		}
	mutex_unlock(&bus_lock);
	return 0;
}

static u32 joined_functionality(struct i2c_adapter *adap)
{
	return I2C_FUNC_I2C | I2C_FUNC_SLAVE;
}

static const struct i2c_algorithm joined_algorithm = {
	.master_xfer = joined_xfer,
	.reg_slave = joined_reg,
	.unreg_slave = joined_unreg,
	.functionality = joined_functionality,
};

static int __init joined_init(void)
{
	int i, ret;

	for (i = 0; i < ADAPTERS; i++) {
		adapters[i].owner = THIS_MODULE;
		adapters[i].algo = &joined_algorithm;
		snprintf(adapters[i].name, sizeof(adapters[i].name), "joined %d", i);
		ret = i2c_add_adapter(&adapters[i]);
		if (ret)
			return ret;
	}
	return 0;
}
device_initcall(joined_init);
